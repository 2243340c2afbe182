// The closed vocabulary of personal data and purposes: the names of an extract of the W3C Data Privacy Vocabulary 2.3
// (https://w3id.org/dpv/2.3), and three purposes that it has no term for.

const names = (text: string): ReadonlySet<string> => new Set(text.split(" "));

export const CATEGORIES = names(
  "pd:Biometric pd:BrowserHistory pd:BrowsingBehaviour pd:CallLog pd:Communication pd:Credit pd:Demographic " +
    "pd:DeviceApplications pd:Dislike pd:Education pd:EmailContent pd:EthnicOrigin pd:FavouriteFood pd:FavouriteMusic " +
    "pd:FinancialAccount pd:Genetic pd:Health pd:HealthRecord pd:Household pd:Income pd:Insurance pd:Intention " +
    "pd:Interest pd:Like pd:LinkClicked pd:LoanRecord pd:Location pd:MedicalHealth pd:MentalHealth pd:Mood pd:Opinion " +
    "pd:PhilosophicalBelief pd:PhysicalHealth pd:PoliticalOpinion pd:Prescription pd:Professional pd:Purchase " +
    "pd:PurchasesAndSpendingHabit pd:ReligiousBelief pd:Salary pd:ServiceConsumptionBehaviour pd:Sexual " +
    "pd:SexualPreference pd:SocialMedia pd:SocialMediaCommunication pd:SocialNetwork pd:TVViewingBehaviour pd:Tax " +
    "pd:TradeUnionMembership pd:Transaction pd:TravelHistory pd:VehicleUsage pd:Weight pd:WorkHistory",
);

/** Categories that take an opt-in of their own: GDPR articles 9 and 10. */
export const SPECIAL_CATEGORIES = names(
  "pd:Biometric pd:EthnicOrigin pd:Genetic pd:Health pd:HealthRecord pd:MedicalHealth pd:MentalHealth " +
    "pd:PhilosophicalBelief pd:PhysicalHealth pd:PoliticalOpinion pd:Prescription pd:ReligiousBelief pd:Sexual " +
    "pd:SexualPreference pd:TradeUnionMembership",
);

export const PURPOSES = names(
  "dpv:AcademicResearch dpv:AccountManagement dpv:Advertising dpv:AgeVerification dpv:CombatClimateChange " +
    "dpv:CommercialPurpose dpv:CommercialResearch dpv:CommunicationForCustomerCare dpv:CommunicationManagement " +
    "dpv:CounterMoneyLaundering dpv:Counterterrorism dpv:CustomerCare dpv:CustomerClaimsManagement " +
    "dpv:CustomerManagement dpv:CustomerOrderManagement dpv:CustomerRelationshipManagement " +
    "dpv:CustomerSolvencyMonitoring dpv:DataAltruism dpv:DeliveryOfGoods dpv:DirectMarketing dpv:DisputeManagement " +
    "dpv:EnforceAccessControl dpv:EnforceSecurity dpv:EstablishContractualAgreement dpv:FraudPreventionAndDetection " +
    "dpv:FulfilmentOfContractualObligation dpv:FulfilmentOfObligation dpv:IdentityAuthentication " +
    "dpv:IdentityVerification dpv:ImproveExistingProductsAndServices dpv:ImproveHealthcare " +
    "dpv:ImproveInternalCRMProcesses dpv:ImprovePublicServices dpv:ImproveTransportMobility " +
    "dpv:IncreaseServiceRobustness dpv:InternalResourceOptimisation dpv:LegalCompliance dpv:MaintainFraudDatabase " +
    "dpv:Marketing dpv:MisusePreventionAndDetection dpv:NonCommercialPurpose dpv:NonCommercialResearch " +
    "dpv:OptimisationForConsumer dpv:OptimisationForController dpv:OptimiseUserInterface " +
    "dpv:OrganisationComplianceManagement dpv:OrganisationGovernance dpv:OrganisationRiskManagement " +
    "dpv:PaymentManagement dpv:Personalisation dpv:PersonalisedAdvertising dpv:PersonalisedBenefits " +
    "dpv:PoliticalCampaign dpv:ProtectionOfIPR dpv:ProtectionOfNationalSecurity dpv:ProtectionOfPublicSecurity " +
    "dpv:ProvideEventRecommendations dpv:ProvideOfficialStatistics dpv:ProvidePersonalisedRecommendations " +
    "dpv:ProvideProductRecommendations dpv:PublicBenefit dpv:PublicPolicyMaking dpv:PublicRelations " +
    "dpv:RecordManagement dpv:RepairImpairments dpv:RequestedServiceProvision dpv:ResearchAndDevelopment " +
    "dpv:RightsFulfilment dpv:ScientificResearch dpv:SearchFunctionalities dpv:SellDataToThirdParties " +
    "dpv:SellInsightsFromData dpv:SellProducts dpv:SellProductsToDataSubject dpv:ServiceAccessDetermination " +
    "dpv:ServiceManagement dpv:ServiceMonitoring dpv:ServiceOptimisation dpv:ServicePersonalisation " +
    "dpv:ServiceProvision dpv:ServiceRegistration dpv:ServiceUsageAnalytics dpv:SocialMediaMarketing " +
    "dpv:TargetedAdvertising dpv:TechnicalServiceProvision dpv:UserInterfacePersonalisation dpv:Verification " +
    "x:BehaviouralSteering x:InfluenceBehaviour x:Persuasion",
);
